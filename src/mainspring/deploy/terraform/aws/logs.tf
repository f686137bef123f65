resource "aws_cloudwatch_log_group" "this" {
  for_each = toset(["gateway", "worker", "network"])

  name              = "/mainspring/${var.name}/${each.key}"
  retention_in_days = var.keep_logs
  kms_key_id        = aws_kms_key.stores.arn
}

# RDS writes to groups of these names.
resource "aws_cloudwatch_log_group" "database" {
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${var.name}/${each.key}"
  retention_in_days = var.keep_logs
  kms_key_id        = aws_kms_key.stores.arn
}
