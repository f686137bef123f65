# Secrets of the processes. Those of `var.secrets` and the keys are filled by hand, so that no value passes through here.

resource "aws_secretsmanager_secret" "catalog" {
  name_prefix = "${var.name}/catalog-"
  kms_key_id  = aws_kms_key.stores.arn
}

locals {
  # A removed secret keeps its name so long. Without protection it is gone at once, and the module can be applied again.
  recovery = var.protected ? 30 : 0

  authority = var.database_authority == "" ? "sslmode=require" : "sslmode=verify-full&sslrootcert=${var.database_authority}"
}

resource "aws_secretsmanager_secret_version" "catalog" {
  secret_id = aws_secretsmanager_secret.catalog.id
  secret_string_wo = join("", [
    "postgresql://mainspring:", ephemeral.aws_secretsmanager_secret_version.password.secret_string,
    "@", aws_db_instance.this.endpoint, "/mainspring?", local.authority,
  ])
  secret_string_wo_version = aws_secretsmanager_secret_version.password.secret_string_wo_version
}

resource "aws_secretsmanager_secret" "keys" {
  name                    = "${var.name}/keys"
  kms_key_id              = aws_kms_key.stores.arn
  recovery_window_in_days = local.recovery
}

resource "aws_secretsmanager_secret" "variables" {
  for_each = var.secrets

  name                    = "${var.name}/${each.key}"
  kms_key_id              = aws_kms_key.stores.arn
  recovery_window_in_days = local.recovery
}

locals {
  # Variables of every process that come from secrets.
  from_secrets = merge(
    { for each in var.secrets : each => aws_secretsmanager_secret.variables[each].arn },
    {
      MAINSPRING_KEYS     = aws_secretsmanager_secret.keys.arn
      MAINSPRING_CATALOG  = aws_secretsmanager_secret.catalog.arn
      MAINSPRING_TRACKING = aws_secretsmanager_secret.catalog.arn
      MAINSPRING_ONLINE   = aws_secretsmanager_secret.catalog.arn
      MAINSPRING_VECTORS  = aws_secretsmanager_secret.catalog.arn
    },
  )
}
