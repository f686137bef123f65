# Two keys: one under which AWS encrypts what it stores, one under which Mainspring wraps its own data keys.

resource "aws_kms_key" "stores" {
  description             = "${var.name}: bucket, database, files, secrets, logs"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.stores_key.json
}

resource "aws_kms_alias" "stores" {
  name          = "alias/${var.name}-stores"
  target_key_id = aws_kms_key.stores.key_id
}

resource "aws_kms_key" "master" {
  description             = "${var.name}: master key of Mainspring"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.master_key.json
}

resource "aws_kms_alias" "master" {
  name          = "alias/${var.name}-master"
  target_key_id = aws_kms_key.master.key_id
}
