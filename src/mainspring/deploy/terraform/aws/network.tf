# A network without a way to or from the internet: no gateway, no public address. Services of AWS are reached by
# endpoints within it.

resource "aws_vpc" "this" {
  cidr_block           = var.network
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = var.name }
}

# The network's own default group lets nothing in and nothing out.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "private" {
  count = 2

  vpc_id                  = aws_vpc.this.id
  availability_zone       = "${var.region}${var.zones[count.index]}"
  cidr_block              = cidrsubnet(var.network, 4, count.index)
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-private-${count.index}" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count = 2

  route_table_id = aws_route_table.private.id
  subnet_id      = aws_subnet.private[count.index].id
}

resource "aws_vpc_endpoint" "bucket" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private.id]
  policy            = data.aws_iam_policy_document.bucket_endpoint.json

  tags = { Name = "${var.name}-s3" }
}

resource "aws_vpc_endpoint" "services" {
  for_each = toset(["ecr.api", "ecr.dkr", "kms", "logs", "secretsmanager"])

  vpc_id              = aws_vpc.this.id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = aws_subnet.private[*].id
  security_group_ids  = [aws_security_group.endpoints.id]
  private_dns_enabled = true
  policy              = data.aws_iam_policy_document.endpoints.json

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_flow_log" "refused" {
  vpc_id               = aws_vpc.this.id
  traffic_type         = "REJECT"
  log_destination_type = "cloud-watch-logs"
  log_destination      = aws_cloudwatch_log_group.this["network"].arn
  iam_role_arn         = aws_iam_role.network.arn
}
