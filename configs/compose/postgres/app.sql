-- Run once, when PostgreSQL makes its cluster: the role with the verifier of ../postern/tenants.yaml, and a database of its own.
CREATE ROLE app LOGIN PASSWORD 'SCRAM-SHA-256$4096:CaUOcKKoMpDRosS5C8pmhQ==$VndYSGLJAe8D+vtYq0Ch1b3dfdlLciKuafECsgy/vDU=:VWYUsEiVXJxAF1Inx8ZK02oWCAkImMTVxs9raKq4Wjk=';
CREATE DATABASE app OWNER app;
