-- Run once, when PostgreSQL makes the database (compose.yaml): the role that the server runs as. It
-- owns nothing; `broker migrate --app-role broker_app` grants it what the server needs.
\set password `cat /run/secrets/database-app-password`
CREATE ROLE broker_app LOGIN PASSWORD :'password';
