"""Patterns of numbers in strings (RE2 and `re` agree on these) and white space, for the SQL and NumPy readings."""

INTEGER = r"[+-]?[0-9]+"
DECIMAL = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
WHITE_SPACE = " \t\n\r\f\v"
