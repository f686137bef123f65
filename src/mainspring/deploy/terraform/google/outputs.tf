output "account" {
  description = "Account of the containers."
  value       = google_service_account.containers.email
}

output "network" {
  description = "Network in which private endpoints have their addresses; empty if endpoints are public."
  value       = join("", google_compute_network.callers[*].id)
}

output "subnetwork" {
  description = "Subnetwork for machines that call private endpoints."
  value       = join("", google_compute_subnetwork.callers[*].id)
}
