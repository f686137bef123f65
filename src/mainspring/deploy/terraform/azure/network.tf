# A network in which the workspace has a private address, and the workspace closed to all others. Nothing in the
# network reaches the internet, and nothing but port 443 of that address is reached.

variable "network" {
  description = "Addresses of the network."
  type        = string
}

variable "clients" {
  description = "Private networks that may call, beside this one."
  type        = list(string)
}

resource "azurerm_virtual_network" "this" {
  name                = var.name
  location            = var.region
  resource_group_name = var.resource_group
  address_space       = [var.network]
  tags                = local.tags
}

resource "azurerm_subnet" "endpoints" {
  name                              = "endpoints"
  resource_group_name               = var.resource_group
  virtual_network_name              = azurerm_virtual_network.this.name
  address_prefixes                  = [var.network]
  private_endpoint_network_policies = "NetworkSecurityGroupEnabled"
  default_outbound_access_enabled   = false
}

resource "azurerm_network_security_group" "endpoints" {
  name                = "${var.name}-endpoints"
  location            = var.region
  resource_group_name = var.resource_group
  tags                = local.tags

  security_rule {
    name                       = "calls"
    description                = "Calls to the workspace's endpoints."
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefixes    = concat([var.network], var.clients)
    source_port_range          = "*"
    destination_address_prefix = var.network
    destination_port_range     = "443"
  }

  security_rule {
    name                       = "nothing-else-in"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }

  security_rule {
    name                       = "nothing-out"
    priority                   = 4096
    direction                  = "Outbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "endpoints" {
  subnet_id                 = azurerm_subnet.endpoints.id
  network_security_group_id = azurerm_network_security_group.endpoints.id
}

# https://learn.microsoft.com/azure/machine-learning/how-to-custom-dns
resource "azurerm_private_dns_zone" "this" {
  for_each = toset(["privatelink.api.azureml.ms", "privatelink.notebooks.azure.net"])

  name                = each.key
  resource_group_name = var.resource_group
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  for_each = azurerm_private_dns_zone.this

  name                  = var.name
  resource_group_name   = var.resource_group
  private_dns_zone_name = each.value.name
  virtual_network_id    = azurerm_virtual_network.this.id
  registration_enabled  = false
  tags                  = local.tags
}

resource "azurerm_private_endpoint" "workspace" {
  name                = "${var.name}-workspace"
  location            = var.region
  resource_group_name = var.resource_group
  subnet_id           = azurerm_subnet.endpoints.id
  tags                = local.tags

  private_service_connection {
    name                           = "${var.name}-workspace"
    private_connection_resource_id = local.workspace
    subresource_names              = ["amlworkspace"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "workspace"
    private_dns_zone_ids = [for each in azurerm_private_dns_zone.this : each.id]
  }

  # Made before it, the address would be open to others for a while.
  depends_on = [azurerm_subnet_network_security_group_association.endpoints]
}

# The workspace is not made here: one property of it is set. It stays closed when the module is removed.
resource "azapi_update_resource" "closed" {
  type        = "Microsoft.MachineLearningServices/workspaces@2024-04-01"
  resource_id = local.workspace

  body = {
    properties = {
      publicNetworkAccess = "Disabled"
    }
  }

  depends_on = [azurerm_private_endpoint.workspace]
}

output "network" {
  description = "Network to connect the callers' networks with, by peering or a VPN."
  value       = azurerm_virtual_network.this.id
}

output "zones" {
  description = "Private zones of DNS to link the callers' networks with."
  value       = keys(azurerm_private_dns_zone.this)
}
