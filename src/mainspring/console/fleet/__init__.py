"""The fleet: devices with their versions and health, and rollouts over them."""
