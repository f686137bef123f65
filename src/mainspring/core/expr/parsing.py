"""What both readings take for a number in a string (RE2 and `re` agree on these), and for white space."""

INTEGER = r"[+-]?[0-9]+"
DECIMAL = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
WHITE_SPACE = " \t\n\r\f\v"
