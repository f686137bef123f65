"""The data plane that every protocol serves from: endpoints, their versions, and how a request runs through one."""
