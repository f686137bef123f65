"""Service health of endpoints: counts by minute and hour, objectives, error budgets, burn rates."""
