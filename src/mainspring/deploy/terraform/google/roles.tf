# The account of the containers, and Google's own that starts them. What each may do is in iam.tf.

locals {
  agent      = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-aiplatform.iam.gserviceaccount.com"
  containers = "serviceAccount:${google_service_account.containers.email}"
}

resource "google_service_account" "containers" {
  project      = var.account.project
  account_id   = var.account.id
  display_name = "Containers of ${var.name}"
}
