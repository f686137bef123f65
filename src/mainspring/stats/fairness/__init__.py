"""Rates, calibration and errors of groups of rows, and how far groups lie apart, from counts that add up over time.

A row has a group, a decision (whether its score reached the threshold), a label and a score. What is kept of many rows
is how many have each combination, by block of time: the sums of two sets of rows are those of their union, so a window
that is over is never read again.

Rates have Wilson's interval (1927), differences Newcombe's (Statistics in Medicine 17, 1998, method 10), ratios that of
their logarithm (Katz et al., Biometrics 34, 1978). With at least five blocks of time they are widened to those of a
jackknife over blocks (`stats.jackknife`): rows that are near in time are not independent.
"""
