"""The frame of the page of a restoration or separation."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; media-src data:; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$summary
<div class="grid">
$cards
$metrics
$convergence
$notes
</div>
<details>
<summary>Settings and versions</summary>
<table><thead><tr><th scope=col>Key</th><th scope=col>Value</th></tr></thead>
<tbody>
$settings
</tbody></table>
</details>
</main>
<script>
$script</script>
</body>
</html>
""")
