"""Stream endpoints: run, show, replay."""
