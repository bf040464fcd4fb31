// An intrusive doubly linked list: members carry their own links, so that moving between lists allocates nothing.

package pool

// node is a member's place in at most one list. Its zero value stands in none.
type node[T any] struct {
	prev, next *node[T]
	list       *list[T]
	item       *T // the struct that this node is part of
}

// list's zero value is empty.
type list[T any] struct {
	head, tail *node[T]
	n          int
}

// first returns the member at the front, or nil.
func (l *list[T]) first() *T { return l.head.get() }

// last returns the member at the back, or nil.
func (l *list[T]) last() *T { return l.tail.get() }

func (n *node[T]) get() *T {
	if n == nil {
		return nil
	}
	return n.item
}

// enter claims n for item in l.
func (l *list[T]) enter(n *node[T], item *T) {
	if n.list != nil {
		panic("BUG: pool: already stands in a list")
	}
	n.list, n.item = l, item
	l.n++
}

func (l *list[T]) pushFront(n *node[T], item *T) {
	l.enter(n, item)
	n.next = l.head
	if l.head != nil {
		l.head.prev = n
	} else {
		l.tail = n
	}
	l.head = n
}

func (l *list[T]) pushBack(n *node[T], item *T) {
	l.enter(n, item)
	n.prev = l.tail
	if l.tail != nil {
		l.tail.next = n
	} else {
		l.head = n
	}
	l.tail = n
}

func (l *list[T]) remove(n *node[T]) {
	if n.list != l {
		panic("BUG: pool: does not stand in this list")
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.head = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.tail = n.prev
	}
	*n = node[T]{}
	l.n--
}
