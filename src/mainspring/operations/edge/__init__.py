"""Edge packages of registered versions."""
