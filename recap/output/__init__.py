"""What people read, for any verb: reports, tables, charts, pages, workbooks.

Generic: knows no verb and none of its words.
"""
