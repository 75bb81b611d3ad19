"""A package and a base image become a tested SIF, without root."""
