variable "project" {
  description = "Name of the project."
  type        = string
}

variable "target" {
  description = "Name of the target."
  type        = string
}

variable "name" {
  description = "Beginning of the names of all resources."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,21}$", var.name))
    error_message = "Write small letters, digits and -, at most 22."
  }
}

variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "image" {
  description = "Image of the gateway and the worker, by digest, in a repository of ECR."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by digest."
  }
}

variable "repository" {
  description = "ARN of the image's repository."
  type        = string
}

variable "command" {
  description = "Arguments of each process, by its name."
  type        = map(list(string))
}

variable "where" {
  description = "Arguments of every command: where the project is in the image, and its profile."
  type        = list(string)
}

variable "probe" {
  description = "Command that ends with 0 where a process is well, by its name."
  type        = map(list(string))
}

variable "environment" {
  description = "Variables of the processes, none of them secret."
  type        = map(string)
}

variable "secrets" {
  description = "Variables whose values are in secrets that are filled by hand."
  type        = set(string)
}

variable "port" {
  description = "Port of the gateway."
  type        = number
}

variable "cpu" {
  description = "Units of processors of a gateway: 1024 are one core."
  type        = number
}

variable "memory" {
  description = "Memory of a gateway, MiB."
  type        = number
}

variable "least" {
  description = "Least gateways."
  type        = number
}

variable "most" {
  description = "Most gateways."
  type        = number
}

variable "worker" {
  description = "Whether the worker and the console run, too."
  type        = bool
}

variable "worker_cpu" {
  description = "Units of processors of the worker."
  type        = number
}

variable "worker_memory" {
  description = "Memory of the worker, MiB."
  type        = number
}

variable "stop_timeout" {
  description = "Seconds from SIGTERM to SIGKILL."
  type        = number
}

variable "zones" {
  description = "Letters of two zones of the region."
  type        = list(string)
}

variable "network" {
  description = "Addresses of the VPC."
  type        = string
}

variable "clients" {
  description = "Networks that may call the gateway and the console, beside the VPC. They have to be private."
  type        = list(string)

  validation {
    condition     = alltrue([for each in var.clients : tonumber(split("/", each)[1]) >= 8])
    error_message = "Name networks of at least 8 bits."
  }
}

variable "tables" {
  description = "Tables of the lake, beside predictions, to which gateways add."
  type        = set(string)
}

variable "scrapers" {
  description = "Private networks from which Prometheus reaches the tasks."
  type        = list(string)
}

variable "certificate" {
  description = "ARN of the load balancer's certificate, in ACM."
  type        = string
}

variable "idle_timeout" {
  description = "Seconds without a byte after which the load balancer closes a connection: more than any deadline."
  type        = number
}

variable "protected" {
  description = "Whether the load balancer and the database are protected from deletion, and removed secrets are kept."
  type        = bool
}

variable "notify" {
  description = "ARN of the topic of SNS to which alarms are sent; empty: there are no alarms."
  type        = string
}

variable "failing" {
  description = "Alarms of a window with too many requests that failed, by name."

  type = map(object({
    about   = string
    fewest  = number
    seconds = number
    share   = number
  }))
}

variable "slow" {
  description = "Alarms of a window with too many slow answers, by name."

  type = map(object({
    about      = string
    percentile = string
    seconds    = number
    within     = number
  }))
}

variable "burning" {
  description = "Alarms of objectives, by name: both windows use up the error budget too fast."

  type = map(object({
    about   = string
    windows = list(string)
  }))
}

variable "database_class" {
  description = "Instance class of the database."
  type        = string
}

variable "database_storage" {
  description = "Storage of the database, GiB: at first, and at most."
  type        = list(number)
}

variable "highly_available" {
  description = "Whether the database has a standby in another zone."
  type        = bool
}

variable "database_authority" {
  description = "File in the image with the authorities of RDS; empty: the connection is encrypted, but not verified."
  type        = string
}

variable "keep_logs" {
  description = "Days that logs are kept."
  type        = number
}

variable "keep_backups" {
  description = "Days that backups of the database, and replaced objects of the bucket, are kept."
  type        = number
}
