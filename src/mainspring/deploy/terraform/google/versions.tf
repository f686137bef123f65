terraform {
  required_version = ">= 1.6.0, < 2.0.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "6.50.0"
    }
  }

  # The rest is given to `terraform init -backend-config=...`: bucket and prefix.
  backend "gcs" {}
}

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = var.labels
}

data "google_project" "this" {
  project_id = var.project
}
