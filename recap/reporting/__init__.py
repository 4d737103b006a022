"""What people read: console output, tables, figures, pages."""
