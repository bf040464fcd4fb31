// When which account is looked at: a heap by time, with each account's place in it.

package cluster

import (
	"container/heap"
	"time"
)

// dueList has the accounts that have something to do, the one that is due first in front.
type dueList []*account

// Len implements [heap.Interface], as the next four do.
func (l dueList) Len() int           { return len(l) }
func (l dueList) Less(i, j int) bool { return l[i].due.Before(l[j].due) }
func (l dueList) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i, j
}

func (l *dueList) Push(x any) {
	a := x.(*account)
	a.place = len(*l)
	*l = append(*l, a)
}

func (l *dueList) Pop() any {
	last := len(*l) - 1
	a := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	a.place = -1
	return a
}

// put sets when an account is due, and reports whether it is first now.
func (l *dueList) put(a *account, at time.Time) bool {
	a.due = at
	if a.place < 0 {
		heap.Push(l, a)
	} else {
		heap.Fix(l, a.place)
	}
	return a.place == 0
}

// remove takes an account out, if it is in.
func (l *dueList) remove(a *account) {
	if a.place >= 0 && a.place < len(*l) && (*l)[a.place] == a {
		heap.Remove(l, a.place)
	}
}

// take takes the first account out if its time has come; else it says when that is, zero if there is none.
func (l *dueList) take(now time.Time) (a *account, at time.Time) {
	if len(*l) == 0 {
		return nil, time.Time{}
	}
	if first := (*l)[0]; first.due.After(now) {
		return nil, first.due
	}
	return heap.Pop(l).(*account), time.Time{}
}
