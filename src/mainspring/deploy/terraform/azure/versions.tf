terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "4.55.0"
    }
    azapi = {
      source  = "Azure/azapi"
      version = "2.9.0"
    }
  }

  # The rest is given to `terraform init -backend-config=...`: resource_group_name, storage_account_name,
  # container_name and key.
  backend "azurerm" {
    use_azuread_auth = true
  }
}

provider "azurerm" {
  subscription_id = var.subscription

  features {}
}

provider "azapi" {
  subscription_id = var.subscription
}

# Those that exist already: the workspace, and the storage that it was made with.
data "azapi_resource" "workspace" {
  type        = "Microsoft.MachineLearningServices/workspaces@2024-04-01"
  resource_id = local.workspace

  response_export_values = ["properties.storageAccount"]
}

locals {
  group     = "/subscriptions/${var.subscription}/resourceGroups/${var.resource_group}"
  workspace = "${local.group}/providers/Microsoft.MachineLearningServices/workspaces/${var.workspace}"

  # Endpoints and deployments are made by `az ml`. Before that, nothing can be said of them.
  endpoints = { for name in keys(var.deployed ? var.endpoints : {}) : name => "${local.workspace}/onlineEndpoints/${name}" }

  tags = {
    Project   = var.project
    Target    = var.target
    ManagedBy = "mainspring"
  }
}
