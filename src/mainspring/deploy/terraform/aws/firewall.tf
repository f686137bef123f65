# Connections that may be opened. All others are refused.

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Load balancer"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "gateway" {
  name        = "${var.name}-gateway"
  description = "Gateway"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "worker" {
  name        = "${var.name}-worker"
  description = "Worker and console"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "Database"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "files" {
  name        = "${var.name}-files"
  description = "Files of the worker"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "endpoints" {
  name        = "${var.name}-endpoints"
  description = "Endpoints of services"
  vpc_id      = aws_vpc.this.id
}

locals {
  console_port   = 8081
  processes      = toset(var.worker ? ["gateway", "worker"] : ["gateway"])
  process_groups = { gateway = aws_security_group.gateway.id, worker = aws_security_group.worker.id }
  process_ports  = { gateway = var.port, worker = local.console_port }
  public_ports   = { gateway = 443, worker = 8443 }
  callers = {
    for each in setproduct(local.processes, concat([var.network], var.clients)) :
    "${each[0]} ${each[1]}" => { port = local.public_ports[each[0]], network = each[1] }
  }
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each = local.callers

  description       = "Callers"
  security_group_id = aws_security_group.balancer.id
  cidr_ipv4         = each.value.network
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each = local.processes

  description                  = "Load balancer to ${each.key}"
  security_group_id            = aws_security_group.balancer.id
  referenced_security_group_id = local.process_groups[each.key]
  ip_protocol                  = "tcp"
  from_port                    = local.process_ports[each.key]
  to_port                      = local.process_ports[each.key]
}

resource "aws_vpc_security_group_ingress_rule" "process" {
  for_each = local.processes

  description                  = "Load balancer to ${each.key}"
  security_group_id            = local.process_groups[each.key]
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.process_ports[each.key]
  to_port                      = local.process_ports[each.key]
}

resource "aws_vpc_security_group_ingress_rule" "scrape" {
  for_each = {
    for each in setproduct(local.processes, var.scrapers) :
    "${each[0]} ${each[1]}" => { process = each[0], network = each[1] }
  }

  description       = "Prometheus to ${each.value.process}"
  security_group_id = local.process_groups[each.value.process]
  cidr_ipv4         = each.value.network
  ip_protocol       = "tcp"
  from_port         = local.process_ports[each.value.process]
  to_port           = local.process_ports[each.value.process]
}

resource "aws_vpc_security_group_egress_rule" "database" {
  for_each = local.processes

  description                  = "${each.key} to the database"
  security_group_id            = local.process_groups[each.key]
  referenced_security_group_id = aws_security_group.database.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  for_each = local.processes

  description                  = "${each.key} to the database"
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = local.process_groups[each.key]
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  for_each = local.processes

  description                  = "${each.key} to services of AWS"
  security_group_id            = local.process_groups[each.key]
  referenced_security_group_id = aws_security_group.endpoints.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = local.processes

  description                  = "${each.key} to services of AWS"
  security_group_id            = aws_security_group.endpoints.id
  referenced_security_group_id = local.process_groups[each.key]
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "bucket" {
  for_each = local.processes

  description       = "${each.key} to the bucket, and to layers of images"
  security_group_id = local.process_groups[each.key]
  prefix_list_id    = aws_vpc_endpoint.bucket.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "files" {
  description                  = "Worker to its files"
  security_group_id            = aws_security_group.worker.id
  referenced_security_group_id = aws_security_group.files.id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
}

resource "aws_vpc_security_group_ingress_rule" "files" {
  description                  = "Worker to its files"
  security_group_id            = aws_security_group.files.id
  referenced_security_group_id = aws_security_group.worker.id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
}
