"""Cost: prices of machines, what was used of them, and budgets.

`rates` divides a machine's price among its parts, `catalogue` has the shipped list prices and
reads providers' own files.
"""
