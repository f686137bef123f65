"""The composition root: settings become adapters, adapters become services, processes are supervised."""
