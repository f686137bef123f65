# Containers of the gateway, and of the worker with the console, as tasks of ECS on Fargate have them.

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
  })

  containers = {
    for each in local.processes : each => [
      {
        name                   = each
        image                  = var.image
        essential              = true
        memory                 = local.memory[each]
        user                   = "10001:10001"
        entryPoint             = ["python3", "-m", "mainspring.processes.task"]
        command                = concat(var.command[each], var.where)
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
