# A network for callers of private endpoints, without a way to the internet. Vertex AI gives each endpoint an address in it.

resource "google_compute_network" "callers" {
  count = var.private ? 1 : 0

  name                            = var.name
  auto_create_subnetworks         = false
  delete_default_routes_on_create = true

  depends_on = [google_project_service.used]
}

resource "google_compute_subnetwork" "callers" {
  count = var.private ? 1 : 0

  name                     = var.name
  network                  = google_compute_network.callers[0].id
  region                   = var.region
  ip_cidr_range            = var.subnet
  private_ip_google_access = false

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "EXCLUDE_ALL_METADATA"
  }
}

# Lets Vertex AI, and no other service, make addresses of its endpoints in the subnetwork.
resource "google_network_connectivity_service_connection_policy" "endpoints" {
  count = var.private ? 1 : 0

  name          = var.name
  location      = var.region
  network       = google_compute_network.callers[0].id
  service_class = "gcp-vertexai"
  description   = "Addresses of endpoints of Vertex AI"

  psc_config {
    subnetworks = [google_compute_subnetwork.callers[0].id]
  }
}

# Nothing is reached from here but addresses of the subnetwork itself.
resource "google_compute_firewall" "nowhere" {
  count = var.private ? 1 : 0

  name               = "${var.name}-nowhere"
  network            = google_compute_network.callers[0].name
  direction          = "EGRESS"
  priority           = 65000
  destination_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }
}

resource "google_compute_firewall" "endpoints" {
  count = var.private ? 1 : 0

  name               = "${var.name}-endpoints"
  network            = google_compute_network.callers[0].name
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = [var.subnet]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}
