output "identity" {
  description = "Identity of the containers, which the endpoints name."
  value       = azurerm_user_assigned_identity.containers.id
}

output "role_of_callers" {
  description = "Role that lets somebody call an endpoint."
  value       = azurerm_role_definition.call.name
}
