terraform {
  # Values that are never stored, such as the password of the database, need 1.11.
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.25.0"
    }
    random = {
      source  = "hashicorp/random"
      version = "3.7.2"
    }
  }

  # The rest is given to `terraform init -backend-config=...`: bucket, key and region.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project   = var.project
      Target    = var.target
      ManagedBy = "mainspring"
    }
  }
}

data "aws_caller_identity" "this" {}
