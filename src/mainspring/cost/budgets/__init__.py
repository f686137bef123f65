"""Budgets of a month: declaration, forecast of the month's end, and the judgement of what was spent."""
