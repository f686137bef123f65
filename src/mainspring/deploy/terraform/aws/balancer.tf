# A load balancer within the network. 443 is the gateway, 8443 the console. It speaks TLS with the tasks, too.

resource "aws_lb" "this" {
  name                       = var.name
  internal                   = true
  load_balancer_type         = "application"
  subnets                    = aws_subnet.private[*].id
  security_groups            = [aws_security_group.balancer.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.protected
  idle_timeout               = var.idle_timeout
}

resource "aws_lb_target_group" "this" {
  for_each = local.processes

  name                 = "${var.name}-${each.key}"
  target_type          = "ip"
  protocol             = "HTTPS"
  port                 = local.process_ports[each.key]
  vpc_id               = aws_vpc.this.id
  deregistration_delay = 10

  health_check {
    protocol            = "HTTPS"
    path                = local.health[each.key]
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

locals {
  health = { gateway = "/v2/health/ready", worker = "/health/live" }
}

resource "aws_lb_listener" "this" {
  for_each = local.processes

  load_balancer_arn = aws_lb.this.arn
  port              = local.public_ports[each.key]
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this[each.key].arn
  }
}
