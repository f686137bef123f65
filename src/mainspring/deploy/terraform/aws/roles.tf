# Roles of the processes (what the code may do), and of ECS while it starts them (image, secrets, logs). Their policies are in
# iam.tf.

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = split(":", data.aws_caller_identity.this.arn)[1]
}

resource "aws_iam_role" "gateway" {
  name               = "${var.name}-gateway"
  description        = "Gateway of Mainspring"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy" "gateway" {
  name   = "gateway"
  role   = aws_iam_role.gateway.id
  policy = data.aws_iam_policy_document.gateway.json
}

resource "aws_iam_role" "gateway_start" {
  name               = "${var.name}-gateway-start"
  description        = "Start of the gateway"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy" "gateway_start" {
  name   = "start"
  role   = aws_iam_role.gateway_start.id
  policy = data.aws_iam_policy_document.gateway_start.json
}

resource "aws_iam_role" "worker" {
  count = var.worker ? 1 : 0

  name               = "${var.name}-worker"
  description        = "Worker and console of Mainspring"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy" "worker" {
  count = var.worker ? 1 : 0

  name   = "worker"
  role   = aws_iam_role.worker[0].id
  policy = data.aws_iam_policy_document.worker.json
}

resource "aws_iam_role" "worker_start" {
  count = var.worker ? 1 : 0

  name               = "${var.name}-worker-start"
  description        = "Start of the worker"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy" "worker_start" {
  count = var.worker ? 1 : 0

  name   = "start"
  role   = aws_iam_role.worker_start[0].id
  policy = data.aws_iam_policy_document.worker_start.json
}

resource "aws_iam_role" "network" {
  name               = "${var.name}-network"
  description        = "Log of refused connections"
  assume_role_policy = data.aws_iam_policy_document.flow_logs.json
}

resource "aws_iam_role_policy" "network" {
  name   = "network"
  role   = aws_iam_role.network.id
  policy = data.aws_iam_policy_document.network.json
}
