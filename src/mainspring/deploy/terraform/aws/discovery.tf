# Names under which Prometheus finds the addresses of all tasks.

locals {
  discovered = length(var.scrapers) > 0 ? local.processes : toset([])
}

resource "aws_service_discovery_private_dns_namespace" "this" {
  count = length(var.scrapers) > 0 ? 1 : 0

  name = "${var.name}.internal"
  vpc  = aws_vpc.this.id
}

resource "aws_service_discovery_service" "this" {
  for_each = local.discovered

  name = each.key

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.this[0].id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 15
    }
  }
}
