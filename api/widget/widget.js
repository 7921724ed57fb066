// The widget <kindred-list>. Written in this file alone.
