"""Who decided what on which evidence; undo and redo as events. Knows no SQL."""
