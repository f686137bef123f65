variable "project" {
  description = "Google's project."
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

variable "labels" {
  description = "Labels of all resources that can have some."
  type        = map(string)
}

variable "region" {
  description = "Region of Google."
  type        = string
}

variable "account" {
  description = "Account of the containers: its id, and the project that it is of."
  type        = object({ id = string, project = string })
}

variable "repositories" {
  description = "Repositories of the images, by a name of each."
  type        = map(object({ location = string, project = string, repository = string }))
}

variable "templates" {
  description = "Repositories of the templates of pipelines, by a name of each."
  type        = map(object({ location = string, project = string, repository = string }))
}

variable "pipelines" {
  description = "Whether there are jobs of pipelines."
  type        = bool
}

variable "bucket" {
  description = "Bucket of trainings and pipelines; empty if there are none."
  type        = string
}

variable "kms_key" {
  description = "Key that encrypts models, endpoints and jobs; empty: Google's own."
  type        = string
}

variable "private" {
  description = "Whether endpoints have addresses in a network of callers alone."
  type        = bool
}

variable "subnet" {
  description = "Addresses of that network."
  type        = string
}

variable "deployers" {
  description = "Who may apply the files."
  type        = list(string)
}

variable "callers" {
  description = "Who may call the endpoints."
  type        = list(string)
}

variable "address" {
  description = "Address of e-mail that is told of alarms."
  type        = string
}

variable "channel" {
  description = "Channel of notifications that is told of alarms, in place of an address."
  type        = string
}

variable "alarms" {
  description = "Alarms by name: a query that has an answer where something is wrong, for how long, and what it means."

  type = map(object({
    about    = string
    for_s    = number
    query    = string
    severity = string
  }))
}
