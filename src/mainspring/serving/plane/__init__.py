"""What every protocol serves from: endpoints, their versions, and how a request runs through one."""
