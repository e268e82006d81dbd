"""A model opened once for several measurements that share their passes over the samples."""
