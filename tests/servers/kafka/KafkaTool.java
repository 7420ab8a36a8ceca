import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * What the tests do at a Kafka with a client that is not Waypost's: one command per process.
 *
 * <pre>
 * BOOTSTRAP create TOPIC PARTITIONS     BOOTSTRAP delete TOPIC
 * BOOTSTRAP send TOPIC                  one record per line of the input: {key, value, partition, headers: [[name, value]]}
 * BOOTSTRAP read TOPIC                  everything up to the end of now, one record per line
 * BOOTSTRAP group GROUP TOPIC           {end, committed}, summed over the partitions
 * </pre>
 *
 * Bytes stand in JSON as base64, and may be null.
 */
public final class KafkaTool {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("request.timeout.ms", "10000");
        properties.put("default.api.timeout.ms", "20000");
        properties.put("key.serializer", ByteArraySerializer.class);
        properties.put("value.serializer", ByteArraySerializer.class);
        properties.put("key.deserializer", ByteArrayDeserializer.class);
        properties.put("value.deserializer", ByteArrayDeserializer.class);
        switch (arguments[1]) {
            case "create" -> {
                try (Admin admin = Admin.create(properties)) {
                    NewTopic topic = new NewTopic(arguments[2], Integer.parseInt(arguments[3]), (short) 1);
                    admin.createTopics(List.of(topic)).all().get();
                }
                // Ready is who takes a record.
                try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties)) {
                    consumer.partitionsFor(arguments[2]);
                }
            }
            case "delete" -> {
                try (Admin admin = Admin.create(properties)) {
                    admin.deleteTopics(List.of(arguments[2])).all().get();
                }
            }
            case "send" -> send(properties, arguments[2]);
            case "read" -> read(properties, arguments[2]);
            case "group" -> group(properties, arguments[2], arguments[3]);
            default -> throw new IllegalArgumentException(arguments[1]);
        }
    }

    private static void send(Properties properties, String topic) throws Exception {
        properties.put("linger.ms", "5");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode node = JSON.readTree(line);
                Integer partition = node.hasNonNull("partition") ? node.get("partition").asInt() : null;
                ProducerRecord<byte[], byte[]> record =
                        new ProducerRecord<>(topic, partition, bytes(node.get("key")), bytes(node.get("value")));
                if (node.has("headers")) {
                    for (JsonNode header : node.get("headers")) {
                        record.headers().add(header.get(0).asText(), bytes(header.get(1)));
                    }
                }
                sent.add(producer.send(record));
            }
            for (Future<RecordMetadata> one : sent) {
                one.get();
            }
        }
    }

    private static void read(Properties properties, String topic) throws Exception {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties)) {
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(info -> new TopicPartition(topic, info.partition()))
                    .collect(Collectors.toList());
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    ObjectNode node = JSON.createObjectNode();
                    node.put("partition", record.partition());
                    node.put("offset", record.offset());
                    node.put("key", text(record.key()));
                    node.put("value", text(record.value()));
                    for (Header header : record.headers()) {
                        node.withArray("headers").addArray().add(header.key()).add(text(header.value()));
                    }
                    out.println(JSON.writeValueAsString(node));
                }
            }
        }
        out.flush();
    }

    private static void group(Properties properties, String group, String topic) throws Exception {
        properties.put("group.id", group);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties)) {
            Set<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(info -> new TopicPartition(topic, info.partition()))
                    .collect(Collectors.toSet());
            long end = consumer.endOffsets(partitions).values().stream().mapToLong(Long::longValue).sum();
            long committed = consumer.committed(partitions).values().stream()
                    .filter(offset -> offset != null)
                    .mapToLong(offset -> offset.offset())
                    .sum();
            System.out.println(JSON.createObjectNode().put("end", end).put("committed", committed));
        }
    }

    private static byte[] bytes(JsonNode node) {
        return node == null || node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }
}
