// Rows that are measured in a way of their own: what they run, and the columns of their table.

package main

import (
	"context"
	"slices"
)

// A measurement is what a row does that is no load on a target.
type measurement struct {
	columns []column
	run     func(ctx context.Context, r *rig) (figures, error)
}

// A column is a figure as its table has it.
type column struct {
	title  string
	figure figure
	ranged bool // with the smallest and the largest of the rounds
}

// ownTables makes a table for each kind of measurement; rows with the same columns share one.
func (r *report) ownTables() (all []table) {
	for _, s := range r.Summary {
		if s.row.own == nil {
			continue
		}
		header, fields := []string{""}, []string{s.row.title}
		for _, c := range s.row.own.columns {
			value := show
			if c.ranged {
				value = showRatio
			}
			header, fields = append(header, c.title), append(fields, value(s.Targets[postern][c.figure]))
		}
		if n := len(all); n > 0 && slices.Equal(all[n-1].header, header) {
			all[n-1].rows = append(all[n-1].rows, fields)
			continue
		}
		all = append(all, table{header: header, rows: [][]string{fields}})
	}
	return all
}
