# The gateway, and the worker with the console, as tasks of ECS on Fargate.

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

locals {
  state  = "/var/lib/mainspring"
  bucket = "s3://${aws_s3_bucket.data.bucket}"
  environment = merge(var.environment, {
    MAINSPRING_STATE       = local.state
    MAINSPRING_LAKE        = "${local.bucket}/lake?region=${var.region}"
    MAINSPRING_BLOBS       = "${local.bucket}/blobs?region=${var.region}"
    MAINSPRING_CHECKPOINTS = "${local.bucket}/checkpoints?region=${var.region}"
    MAINSPRING_ENCRYPTION  = "awskms://${var.region}/${aws_kms_key.master.key_id}"
    AWS_REGION             = var.region
    TMPDIR                 = "${local.state}/tmp"
  })

  # Keys of the installation are their owner's alone, and further ones are written beside them. A file that is there is newer.
  copy_keys = <<-END
    import base64, io, os, pathlib, tarfile
    state = pathlib.Path("${local.state}")
    keys = state / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    (state / "tmp").mkdir(mode=0o700, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(os.environ["KEYS"]))) as packed:
        for each in packed.getmembers():
            place = keys / pathlib.PurePosixPath(each.name).name
            if each.isfile() and not place.exists():
                half = place.with_name(place.name + ".copied")
                with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(packed.extractfile(each).read())
                half.rename(place)
  END

  containers = {
    for each in local.processes : each => [
      {
        name                   = "keys"
        image                  = var.image
        essential              = false
        user                   = "10001:10001"
        entryPoint             = ["python3", "-c", local.copy_keys]
        command                = []
        readonlyRootFilesystem = true
        linuxParameters        = { capabilities = { drop = ["ALL"] } }
        mountPoints            = [{ sourceVolume = "state", containerPath = local.state, readOnly = false }]
        environment            = []
        secrets                = [{ name = "KEYS", valueFrom = aws_secretsmanager_secret.keys.arn }]
        logConfiguration       = local.logging[each]
      },
      {
        name                   = each
        image                  = var.image
        essential              = true
        memory                 = local.memory[each]
        user                   = "10001:10001"
        entryPoint             = var.start
        command                = concat(var.command[each], var.where)
        dependsOn              = [{ containerName = "keys", condition = "SUCCESS" }]
        readonlyRootFilesystem = true
        linuxParameters        = { capabilities = { drop = ["ALL"] } }
        stopTimeout            = var.stop_timeout
        portMappings           = [{ containerPort = local.process_ports[each], protocol = "tcp" }]
        healthCheck            = { command = concat(["CMD"], var.probe[each]), interval = 10, timeout = 5, retries = 3, startPeriod = 120 }
        mountPoints            = [{ sourceVolume = "state", containerPath = local.state, readOnly = false }]
        ulimits                = [{ name = "nofile", softLimit = 20000, hardLimit = 20000 }]
        environment            = [for name, value in merge(local.environment, local.listening[each]) : { name = name, value = value }]
        secrets                = [for name, arn in local.from_secrets : { name = name, valueFrom = arn }]
        logConfiguration       = local.logging[each]
      },
    ]
  }

  memory = { gateway = var.memory, worker = var.worker_memory }

  listening = {
    gateway = { MAINSPRING_GATEWAY = "0.0.0.0:${var.port}" }
    worker  = { MAINSPRING_CONTROL = "0.0.0.0:${local.console_port}" }
  }

  logging = {
    for each in local.processes : each => {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this[each].name
        awslogs-region        = var.region
        awslogs-stream-prefix = each
      }
    }
  }
}

resource "aws_ecs_task_definition" "gateway" {
  family                   = "${var.name}-gateway"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  task_role_arn            = aws_iam_role.gateway.arn
  execution_role_arn       = aws_iam_role.gateway_start.arn
  container_definitions    = jsonencode(local.containers["gateway"])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  volume {
    name = "state"
  }
}

resource "aws_ecs_service" "gateway" {
  name                               = "gateway"
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.gateway.arn
  launch_type                        = "FARGATE"
  platform_version                   = "1.4.0"
  desired_count                      = var.least
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 180
  enable_execute_command             = false
  propagate_tags                     = "SERVICE"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = aws_subnet.private[*].id
    security_groups  = [aws_security_group.gateway.id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this["gateway"].arn
    container_name   = "gateway"
    container_port   = var.port
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.this, aws_vpc_endpoint.services]
}

resource "aws_appautoscaling_target" "gateway" {
  count = var.least < var.most ? 1 : 0

  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.gateway.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.least
  max_capacity       = var.most
}

resource "aws_appautoscaling_policy" "gateway" {
  count = var.least < var.most ? 1 : 0

  name               = "processors"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.gateway[0].service_namespace
  resource_id        = aws_appautoscaling_target.gateway[0].resource_id
  scalable_dimension = aws_appautoscaling_target.gateway[0].scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = 70
    scale_in_cooldown  = 300
    scale_out_cooldown = 30

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

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

  load_balancer {
    target_group_arn = aws_lb_target_group.this["worker"].arn
    container_name   = "worker"
    container_port   = local.console_port
  }

  depends_on = [aws_lb_listener.this, aws_vpc_endpoint.services, aws_efs_mount_target.worker]
}
