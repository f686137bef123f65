output "address" {
  description = "Name that the certificate's host has to be an alias of."
  value       = aws_lb.this.dns_name
}

output "secrets" {
  description = "Secrets to be filled by hand, by variable."
  value = merge(
    { KEYS = aws_secretsmanager_secret.keys.arn },
    { for each in var.secrets : each => aws_secretsmanager_secret.variables[each].arn },
  )
}

output "bucket" {
  description = "Bucket of the lake and the bundles."
  value       = aws_s3_bucket.data.bucket
}
