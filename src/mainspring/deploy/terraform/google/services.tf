# Services of Google that the rest needs. They stay on when the module is removed: others may use them.

resource "google_project_service" "used" {
  for_each = toset(concat(
    ["aiplatform.googleapis.com", "iam.googleapis.com", "monitoring.googleapis.com"],
    var.private ? ["compute.googleapis.com", "networkconnectivity.googleapis.com"] : [],
  ))

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}
