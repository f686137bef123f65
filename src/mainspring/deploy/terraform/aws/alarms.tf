# Alarms: objectives that break, by the windows and limits of the rules for Prometheus, as the load balancer sees them;
# processes that do not answer, and storage that runs out. Only where there is a topic to tell.

locals {
  topics = var.notify == "" ? [] : [var.notify]

  balancer_metrics = { LoadBalancer = aws_lb.this.arn_suffix }
  gateway_metrics = {
    LoadBalancer = aws_lb.this.arn_suffix
    TargetGroup  = aws_lb_target_group.this["gateway"].arn_suffix
  }
}

# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html
resource "aws_cloudwatch_metric_alarm" "failing" {
  for_each = var.failing

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.about
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.share
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"

  metric_query {
    id          = "share"
    label       = "Share of requests that failed"
    expression  = "IF(bad >= ${each.value.fewest}, bad / total, 0)"
    return_data = true
  }

  metric_query {
    id          = "bad"
    expression  = "FILL(failed, 0) + FILL(refused, 0)"
    return_data = false
  }

  metric_query {
    id          = "total"
    expression  = "FILL(requests, 0) + FILL(refused, 0)"
    return_data = false
  }

  metric_query {
    id          = "requests"
    return_data = false

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "RequestCount"
      stat        = "Sum"
      period      = each.value.seconds
      dimensions  = local.gateway_metrics
    }
  }

  metric_query {
    id          = "failed"
    return_data = false

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "HTTPCode_Target_5XX_Count"
      stat        = "Sum"
      period      = each.value.seconds
      dimensions  = local.gateway_metrics
    }
  }

  metric_query {
    id          = "refused"
    return_data = false

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "HTTPCode_ELB_5XX_Count"
      stat        = "Sum"
      period      = each.value.seconds
      dimensions  = local.balancer_metrics
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "slow" {
  for_each = var.slow

  alarm_name                            = "${var.name}-${each.key}"
  alarm_description                     = each.value.about
  namespace                             = "AWS/ApplicationELB"
  metric_name                           = "TargetResponseTime"
  dimensions                            = local.gateway_metrics
  extended_statistic                    = each.value.percentile
  period                                = each.value.seconds
  comparison_operator                   = "GreaterThanThreshold"
  threshold                             = each.value.within
  evaluation_periods                    = 1
  evaluate_low_sample_count_percentiles = "ignore"
  treat_missing_data                    = "notBreaching"
}

resource "aws_cloudwatch_composite_alarm" "burning" {
  for_each = var.burning

  alarm_name        = "${var.name}-${each.key}"
  alarm_description = each.value.about
  alarm_rule        = join(" AND ", [for window in each.value.windows : "ALARM(\"${var.name}-${window}\")"])
  alarm_actions     = local.topics
  ok_actions        = local.topics

  depends_on = [aws_cloudwatch_metric_alarm.failing, aws_cloudwatch_metric_alarm.slow]
}

resource "aws_cloudwatch_metric_alarm" "unanswered" {
  for_each = var.notify == "" ? toset([]) : local.processes

  alarm_name          = "${var.name}-${each.key}-unanswered"
  alarm_description   = "No task of the ${each.key} answers the load balancer."
  namespace           = "AWS/ApplicationELB"
  metric_name         = "HealthyHostCount"
  statistic           = "Maximum"
  period              = 60
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = 5
  treat_missing_data  = "breaching"
  alarm_actions       = local.topics
  ok_actions          = local.topics

  dimensions = {
    LoadBalancer = aws_lb.this.arn_suffix
    TargetGroup  = aws_lb_target_group.this[each.key].arn_suffix
  }
}

resource "aws_cloudwatch_metric_alarm" "storage" {
  count = var.notify == "" ? 0 : 1

  alarm_name          = "${var.name}-database-storage"
  alarm_description   = "The database has less than a tenth of its first storage left, and grows no further by itself."
  namespace           = "AWS/RDS"
  metric_name         = "FreeStorageSpace"
  dimensions          = { DBInstanceIdentifier = aws_db_instance.this.identifier }
  statistic           = "Minimum"
  period              = 300
  comparison_operator = "LessThanThreshold"
  threshold           = var.database_storage[0] * 107374182
  evaluation_periods  = 6
  treat_missing_data  = "breaching"
  alarm_actions       = local.topics
  ok_actions          = local.topics
}
