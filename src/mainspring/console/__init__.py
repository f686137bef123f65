"""The console: the control plane's API under /api, and pages for people. Import `create_app` from `console.app`."""
