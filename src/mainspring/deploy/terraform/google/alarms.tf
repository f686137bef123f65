# Alarms of the objectives, in windows of requests as Vertex AI counts them.

locals {
  channels = var.address == "" ? compact([var.channel]) : google_monitoring_notification_channel.address[*].name
}

resource "google_monitoring_notification_channel" "address" {
  count = var.address == "" ? 0 : 1

  display_name = var.name
  type         = "email"
  labels       = { email_address = var.address }

  depends_on = [google_project_service.used]
}

resource "google_monitoring_alert_policy" "objectives" {
  for_each = var.alarms

  display_name          = each.key
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = local.channels
  user_labels           = var.labels

  conditions {
    display_name = each.key

    condition_prometheus_query_language {
      query                     = each.value.query
      duration                  = "${each.value.for_s}s"
      evaluation_interval       = "60s"
      disable_metric_validation = true
    }
  }

  documentation {
    content   = each.value.about
    mime_type = "text/markdown"
  }

  depends_on = [google_project_service.used]
}
