# Identities that have the rights of iam.tf. None has a password or a key.

resource "azurerm_user_assigned_identity" "containers" {
  name                = "${var.name}-containers"
  location            = var.region
  resource_group_name = var.resource_group
  tags                = local.tags
}

resource "azurerm_user_assigned_identity" "alarms" {
  count = var.notify == "" ? 0 : 1

  name                = "${var.name}-alarms"
  location            = var.region
  resource_group_name = var.resource_group
  tags                = local.tags
}
