# Alarms: objectives that break, by the windows and shares of the rules for Prometheus, over the log of the endpoints'
# requests; replicas that are full, by the metrics of their deployment. Only where there is somebody to tell.

locals {
  told    = var.notify == "" ? [] : [strcontains(var.notify, "@") ? azurerm_monitor_action_group.told[0].id : var.notify]
  watched = var.notify == "" ? {} : local.endpoints

  # https://learn.microsoft.com/azure/azure-monitor/reference/supported-metrics/microsoft-machinelearningservices-workspaces-onlineendpoints-deployments-metrics
  limits = {
    cores = {
      about       = "The replicas have used over 90% of their cores for 30 minutes: allow more of them."
      metric      = "CpuUtilizationPercentage"
      aggregation = "Average"
      operator    = "GreaterThan"
      threshold   = 90
      window      = "PT30M"
      of_each     = []
    }
    memory = {
      about       = "A replica has used over 90% of its memory for 15 minutes."
      metric      = "CpuMemoryUtilizationPercentage"
      aggregation = "Average"
      operator    = "GreaterThan"
      threshold   = 90
      window      = "PT15M"
      of_each     = ["instanceId"]
    }
    disk = {
      about       = "A replica has used over 90% of a disk for 15 minutes. Its prediction log is there, too."
      metric      = "DiskUtilization"
      aggregation = "Average"
      operator    = "GreaterThan"
      threshold   = 90
      window      = "PT15M"
      of_each     = ["instanceId", "disk"]
    }
    replicas = {
      about       = "The deployment has had no replica for 5 minutes."
      metric      = "DeploymentCapacity"
      aggregation = "Maximum"
      operator    = "LessThan"
      threshold   = 1
      window      = "PT5M"
      of_each     = []
    }
  }
}

resource "azurerm_monitor_action_group" "told" {
  count = strcontains(var.notify, "@") ? 1 : 0

  name                = "${var.name}-told"
  resource_group_name = var.resource_group
  short_name          = "mainspring"
  tags                = local.tags

  email_receiver {
    name                    = "mail"
    email_address           = var.notify
    use_common_alert_schema = true
  }
}

resource "azurerm_log_analytics_workspace" "requests" {
  count = var.notify == "" ? 0 : 1

  name                         = "${var.name}-requests"
  location                     = var.region
  resource_group_name          = var.resource_group
  sku                          = "PerGB2018"
  retention_in_days            = 30
  local_authentication_enabled = false # so that its keys, which come into the state, open nothing
  internet_ingestion_enabled   = false # what Azure itself sends comes another way
  tags                         = local.tags
}

resource "azurerm_monitor_diagnostic_setting" "requests" {
  for_each = local.watched

  name                           = "${var.name}-requests"
  target_resource_id             = each.value
  log_analytics_workspace_id     = azurerm_log_analytics_workspace.requests[0].id
  log_analytics_destination_type = "Dedicated"

  # Sizes, times and codes of requests, and who called; nothing of their bodies.
  enabled_log {
    category = "AmlOnlineEndpointTrafficLog"
  }
}

# A record arrives minutes after its request, so windows are of arrival. Where the container answers an error, Azure
# answers 424, and 408 where it has waited too long. Requests that their callers got wrong do not count.
resource "azurerm_monitor_scheduled_query_rules_alert_v2" "burning" {
  for_each = var.burning

  name                    = "${var.name}-${each.key}"
  description             = each.value.about
  location                = var.region
  resource_group_name     = var.resource_group
  scopes                  = [azurerm_log_analytics_workspace.requests[0].id]
  severity                = each.value.severity
  evaluation_frequency    = "PT5M"
  window_duration         = each.value.read
  auto_mitigation_enabled = true
  skip_query_validation   = true # the log has no columns before its first record
  tags                    = local.tags

  criteria {
    operator                = "GreaterThan"
    threshold               = 0
    time_aggregation_method = "Count"

    query = <<-KQL
      AmlOnlineEndpointTrafficLog
      | where EndpointName == "${each.value.endpoint}"
      | extend arrived = ingestion_time(), code = toint(ResponseCode), inner_code = toint(ModelStatusCode)
      | extend inner_failed = isnull(inner_code) or inner_code >= 500 or inner_code == 429
      | extend failed = code >= 500 or code in (408, 429) or (code == 424 and inner_failed)
      | where code < 400 or (failed and ${each.value.within} == 0)
      | extend bad = failed or (${each.value.within} > 0 and todouble(TotalDurationMs) > ${each.value.within})
      | extend in_long = arrived > ago(${each.value.long}s), in_short = arrived > ago(${each.value.short}s)
      | summarize long_all = countif(in_long), long_bad = countif(in_long and bad), short_all = countif(in_short), short_bad = countif(in_short and bad)
      | where long_bad >= ${each.value.fewest} and long_bad > ${each.value.share} * long_all
      | where short_bad > ${each.value.share} * short_all
    KQL

    failing_periods {
      minimum_failing_periods_to_trigger_alert = 1
      number_of_evaluation_periods             = 1
    }
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.alarms[0].id]
  }

  action {
    action_groups = local.told
  }

  depends_on = [azurerm_role_assignment.read_requests]
}

resource "azurerm_monitor_metric_alert" "full" {
  for_each = { for each in setproduct(keys(local.watched), keys(local.limits)) : "${each[0]}-${each[1]}" => {
    deployment = "${local.watched[each[0]]}/deployments/${var.endpoints[each[0]]}"
    limit      = local.limits[each[1]]
  } }

  name                = "${var.name}-${each.key}"
  description         = each.value.limit.about
  resource_group_name = var.resource_group
  scopes              = [each.value.deployment]
  severity            = 2
  frequency           = "PT1M"
  window_size         = each.value.limit.window
  auto_mitigate       = true
  tags                = local.tags

  criteria {
    metric_namespace = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments"
    metric_name      = each.value.limit.metric
    aggregation      = each.value.limit.aggregation
    operator         = each.value.limit.operator
    threshold        = each.value.limit.threshold

    dynamic "dimension" {
      for_each = each.value.limit.of_each

      content {
        name     = dimension.value
        operator = "Include"
        values   = ["*"]
      }
    }
  }

  dynamic "action" {
    for_each = local.told

    content {
      action_group_id = action.value
    }
  }
}
