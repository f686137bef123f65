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
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "Write small letters, digits and -, at most 40."
  }
}

variable "region" {
  description = "Region of the workspace."
  type        = string
}

variable "subscription" {
  description = "Subscription of the workspace."
  type        = string
}

variable "resource_group" {
  description = "Resource group of the workspace, in which all resources are made."
  type        = string
}

variable "workspace" {
  description = "Name of the workspace of Azure Machine Learning."
  type        = string
}

variable "registry" {
  description = "Resource id of the registry of the image."
  type        = string
}

variable "endpoints" {
  description = "Deployment of each endpoint, by the endpoint's name."
  type        = map(string)
}

variable "deployed" {
  description = "Whether the endpoints and their deployments are there. Rights on them, logs and alarms need them."
  type        = bool
}

variable "callers" {
  description = "Object ids in Entra of those who may call the endpoints."
  type        = set(string)
}

variable "deployers" {
  description = "Object ids in Entra of those who may make endpoints and jobs."
  type        = set(string)
}

variable "notify" {
  description = "Who is told of alarms: an e-mail address, or the resource id of an action group. Empty: there are none."
  type        = string
}

variable "burning" {
  description = "Alarms of objectives: more than a share of an endpoint's requests is bad in both windows."
  type = map(object({
    about    = string
    endpoint = string
    share    = number
    within   = number # ms of a good answer; 0: an answer is good if it is no failure
    fewest   = number # bad requests in the long window without which it is no alarm
    long     = number # seconds
    short    = number
    read     = string # time of which the log is read: the long window and what arrives late
    severity = number
  }))
}
