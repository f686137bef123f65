output "address" {
  description = "Name that the certificate's host has to be an alias of."
  value       = aws_lb.this.dns_name
}

output "secrets" {
  description = "Secrets to be filled by hand, by variable."
  value = merge(
    { MAINSPRING_KEYS = aws_secretsmanager_secret.keys.arn },
    { for each in var.secrets : each => aws_secretsmanager_secret.variables[each].arn },
  )
}

output "administrator" {
  description = "Command that makes a key of an administrator for an hour, and writes it into the log of the process."
  value = join(" ", [
    "aws ecs run-task --launch-type FARGATE --region", var.region, "--cluster", aws_ecs_cluster.this.name,
    "--task-definition", var.worker ? "${var.name}-worker" : "${var.name}-gateway",
    "--network-configuration", "'${jsonencode({ awsvpcConfiguration = {
      subnets        = aws_subnet.private[*].id
      securityGroups = [local.process_groups[var.worker ? "worker" : "gateway"]]
      assignPublicIp = "DISABLED"
    } })}'",
    "--overrides", "'${jsonencode({ containerOverrides = [{
      name    = var.worker ? "worker" : "gateway"
      command = concat(["keys", "create", "administrator", "--scope", "admin", "--expires", "1h"], var.where)
    }] })}'",
  ])
}

output "bucket" {
  description = "Bucket of the lake and the bundles."
  value       = aws_s3_bucket.data.bucket
}
