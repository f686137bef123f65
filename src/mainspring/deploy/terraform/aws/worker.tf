# The worker with the console, and the files that it keeps.

resource "aws_ecs_task_definition" "worker" {
  count = var.worker ? 1 : 0

  family                   = "${var.name}-worker"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.worker_cpu
  memory                   = var.worker_memory
  task_role_arn            = aws_iam_role.worker[0].arn
  execution_role_arn       = aws_iam_role.worker_start[0].arn
  container_definitions    = jsonencode(local.containers["worker"])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  volume {
    name = "state"

    efs_volume_configuration {
      file_system_id     = aws_efs_file_system.worker[0].id
      transit_encryption = "ENABLED"

      authorization_config {
        access_point_id = aws_efs_access_point.worker[0].id
        iam             = "ENABLED"
      }
    }
  }
}

# Never two workers at once, so that each duty has one place.
resource "aws_ecs_service" "worker" {
  count = var.worker ? 1 : 0

  name                               = "worker"
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.worker[0].arn
  launch_type                        = "FARGATE"
  platform_version                   = "1.4.0"
  desired_count                      = 1
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100
  health_check_grace_period_seconds  = 180
  enable_execute_command             = false
  propagate_tags                     = "SERVICE"

  network_configuration {
    subnets          = aws_subnet.private[*].id
    security_groups  = [aws_security_group.worker.id]
    assign_public_ip = false
  }

  dynamic "service_registries" {
    for_each = [for name, each in aws_service_discovery_service.this : each.arn if name == "worker"]

    content {
      registry_arn = service_registries.value
    }
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this["worker"].arn
    container_name   = "worker"
    container_port   = local.console_port
  }

  depends_on = [aws_lb_listener.this, aws_vpc_endpoint.services, aws_efs_mount_target.worker]
}

resource "aws_efs_file_system" "worker" {
  count = var.worker ? 1 : 0

  encrypted  = true
  kms_key_id = aws_kms_key.stores.arn

  tags = { Name = "${var.name}-worker" }
}

resource "aws_efs_backup_policy" "worker" {
  count = var.worker ? 1 : 0

  file_system_id = aws_efs_file_system.worker[0].id

  backup_policy {
    status = "ENABLED"
  }
}

resource "aws_efs_mount_target" "worker" {
  count = var.worker ? 2 : 0

  file_system_id  = aws_efs_file_system.worker[0].id
  subnet_id       = aws_subnet.private[count.index].id
  security_groups = [aws_security_group.files.id]
}

resource "aws_efs_access_point" "worker" {
  count = var.worker ? 1 : 0

  file_system_id = aws_efs_file_system.worker[0].id

  posix_user {
    uid = 10001
    gid = 10001
  }

  root_directory {
    path = "/state"

    creation_info {
      owner_uid   = 10001
      owner_gid   = 10001
      permissions = "0700"
    }
  }
}

# With it, nobody else who reaches the files may mount them.
resource "aws_efs_file_system_policy" "worker" {
  count = var.worker ? 1 : 0

  file_system_id = aws_efs_file_system.worker[0].id
  policy         = data.aws_iam_policy_document.files[0].json
}
